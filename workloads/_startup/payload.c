/* The start-up payload: its first act is to send the nonce; then it leaves. PAYLOAD NONCE */
#define ISOBENCH_MAIN
#include "isobench.h"

static int ib_main(int argc, char **argv, char **environment) {
    struct ib ib = {.nonce = argc > 1 ? argv[1] : "", .environment = environment};
    ib_hello(&ib);
    return 0;
}
