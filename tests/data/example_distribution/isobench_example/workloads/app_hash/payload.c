/* app.hash - FNV-1a over 4 KiB. */
#include "isobench.h"

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    uint64_t checksum = 0;
    for (uint64_t i = 0; i < loops; i++) {
        uint64_t hash = 0xcbf29ce484222325;
        for (uint64_t j = 0; j < 4096; j++) hash = (hash ^ ((i + j) & 255)) * 0x100000001b3;
        checksum = ib_mix(checksum, hash);
    }
    return checksum;
}
