"""Never comes back to whoever imports it."""

import time

NEVER = 3600.0
time.sleep(NEVER)
