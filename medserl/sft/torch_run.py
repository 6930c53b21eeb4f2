"""torch's launcher (``torch.distributed.run``), whose store is on loopback where the warm start has one node."""

from __future__ import annotations

from torch.distributed.elastic.rendezvous import c10d_rendezvous_backend
from torch.distributed.run import main

from medserl.loopback import keep_store_on_loopback

if __name__ == "__main__":
    keep_store_on_loopback(c10d_rendezvous_backend)
    main()
