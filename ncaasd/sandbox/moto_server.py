"""moto's S3 server as a process of its own: `python -m ncaasd.sandbox.moto_server HOST PORT`."""

from __future__ import annotations

import sys
import threading


def main(host: str, port: int) -> None:
    from moto.server import ThreadedMotoServer  # the extra `sandbox`; not needed where there is SeaweedFS

    ThreadedMotoServer(ip_address=host, port=port, verbose=False).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
