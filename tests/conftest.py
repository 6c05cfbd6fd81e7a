"""What all tests share: one thread a process, so that tests run alike on small machines and beside
other work.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
