"""A SeaweedFS for the measurements, in a process of its own: the one that measures must stay small.

python benchmarks/weed.py FOLDER       # prints its endpoint and a key, as JSON; stops when its input ends
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ncaasd.sandbox.server import SandboxServer


def main() -> None:
    # A bucket without versions, and a key without limits: what is compared is clients, not permissions.
    with SandboxServer(sys.argv[1], buckets=["analysis"], group="lab", extra_buckets=["bench"]) as server:
        key = server.admin_credentials
        said = {"endpoint": server.endpoint, "access_key": key.access_key, "secret_key": key.secret_key}
        print(json.dumps(said), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
