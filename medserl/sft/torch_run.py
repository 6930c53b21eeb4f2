"""torch's launcher (``torch.distributed.run``), whose store is on loopback where the warm start has one node."""

from __future__ import annotations

import torch.distributed
from torch.distributed.elastic.rendezvous import c10d_rendezvous_backend
from torch.distributed.run import main

from medserl.loopback import keep_store_on_loopback

if __name__ == "__main__":
    keep_store_on_loopback(c10d_rendezvous_backend)  # where the launchers meet
    keep_store_on_loopback(torch.distributed)  # where their workers do
    main()
