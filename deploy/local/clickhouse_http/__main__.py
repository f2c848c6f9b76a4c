"""`python -m clickhouse_http` or `python path/to/clickhouse_http`."""

import sys
from pathlib import Path

if not __package__:
    # Run as a directory: make the package importable under its own name.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from clickhouse_http.server import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
