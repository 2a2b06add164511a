"""``lozo-report FOLDER``: all runs below a folder in one HTML file, or watched while they go on."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from lozo_bench.errors import UserError, counted
from lozo_bench.report.collect import Collector
from lozo_bench.report.render import as_html
from lozo_bench.report.serve import LOOPBACK, serve
from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.status import statuses_below

_PORT = 8421


def main() -> None:
    """Run the command. Exit code 2 if there are no runs, or the file cannot be written."""
    arguments = _parser().parse_args()
    try:
        collector = Collector(arguments.folder)
        if arguments.watch:
            _watch(collector, arguments.port)
        else:
            _write(collector, arguments.out)
            if arguments.wandb:
                _send(arguments.out, arguments.folder)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lozo-report",
        description="Write all runs below a folder into one HTML file: sweeps, tables, curves, "
        "and a page for each run. It needs no network, and can be sent to others.",
        epilog="for example: lozo-report outputs/; lozo-report outputs/default --out sweep.html; "
        "lozo-report outputs/ --watch",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), help="the file to write (%(default)s)"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="instead of a file, show the report on this machine and keep it up to date",
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="also log the file in wandb, in the artifact of each sweep that it shows",
    )
    parser.add_argument(
        "--port", type=int, default=_PORT, help="where --watch listens (%(default)s)"
    )
    return parser


def _write(collector: Collector, out: Path) -> None:
    report = collector.collect()
    try:
        write_text(out, as_html(report))
    except OSError as error:
        raise UserError(f"--out: {out} cannot be written ({error.strerror})") from error
    print(f"{out}: {counted(len(report['runs']), 'run')}, {out.stat().st_size / 1e6:.1f} MB")


def _send(out: Path, folder: Path) -> None:
    from lozo_bench.display.trackers.wandb_sweep import send_file  # it needs wandb

    names = send_file(out, [cell.folder for cell in statuses_below(folder.resolve())])
    print(f"{out} is in wandb, in {', '.join(names)}")


def _watch(collector: Collector, port: int) -> None:
    server = serve(collector, port)
    print(f"http://{LOOPBACK}:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
    try:
        wait()
    except KeyboardInterrupt:
        print("\nended; the runs go on")
    finally:
        server.shutdown()
        server.server_close()


def wait() -> None:
    """Wait until the program is interrupted."""
    threading.Event().wait()


if __name__ == "__main__":
    main()
