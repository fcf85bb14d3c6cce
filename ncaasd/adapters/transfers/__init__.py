"""Uploads and downloads: they are resumed after any interruption, and nothing is sent twice without need.

pool        the workers, and the outcome of each step
flows       which transfer is next: fair between analyses, and between small files and large ones
transfer    what an upload and a download have in common
uploads     one file to one key        source     the local file, opened once and checked for changes
downloads   one object to one place    checksums  CRC64NVME and ETags
bandwidth   the budget                 meter      live counters        buffers  reused memory
"""

from ncaasd.adapters.transfers.downloads import DOWNLOAD_CRASH_POINTS, partial_token
from ncaasd.adapters.transfers.pool import TransferPool
from ncaasd.adapters.transfers.uploads import UPLOAD_CRASH_POINTS

CRASH_POINTS = UPLOAD_CRASH_POINTS + DOWNLOAD_CRASH_POINTS

__all__ = ["CRASH_POINTS", "TransferPool", "partial_token"]
