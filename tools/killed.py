"""Is a killed ``minisbert encode`` gone on with to the same bytes, and does --append add nothing twice?

For each format: encode rows in one run; start once more, kill -9 at random places, and each time go on with --resume;
compare the files. Then append rows twice. It needs a minute for each 100,000 rows or so.

    python -m tools.killed --rows 200000 --kills 3
"""

import argparse
import filecmp
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pyarrow import parquet

ROOT = Path(__file__).parents[1]
WORDS = "a the red blue cheap light warm shoe boot coat paper wool rain running for with and".split()  # noqa: SIM905


def write_rows(path: Path, rows: range, seed: int) -> None:
    words = random.Random(seed)
    with path.open("w") as file:
        file.write("id,brand,text\n")
        file.writelines(
            f"{row},brand{row % 7},{' '.join(words.choices(WORDS, k=words.randint(3, 20)))}\n" for row in rows
        )


def start(*argv: object, model: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "minisbert", "encode", *map(str, argv), "--model", str(model), "--quiet"]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)


def finish(running: subprocess.Popen) -> str:
    said = running.communicate()[1].decode().strip()
    assert running.returncode == 0, said
    return said


def check(suffix: str, args: argparse.Namespace, folder: Path) -> None:
    source, whole, killed = folder / "rows.csv", folder / f"whole.{suffix}", folder / f"killed.{suffix}"
    keep = [] if suffix == "npy" else ["--keep"]
    finish(start(source, "-o", whole, *keep, model=args.model))
    partial, dice = Path(f"{killed}.partial"), random.Random(f"{args.seed} {suffix}")
    for kill, place in enumerate(sorted(dice.uniform(0, 0.95) for _ in range(args.kills))):
        running = start(source, "-o", killed, *keep, *["--resume"] * (kill > 0), model=args.model)
        while not partial.exists() or partial.stat().st_size < place * args.rows * args.row_bytes:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.3))  # in the middle of whatever it does by then
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert not killed.exists()
        print(f"{suffix}: killed at {place:.0%}, with {partial.stat().st_size:,} bytes done", flush=True)
    print(f"{suffix}: {finish(start(source, '-o', killed, *keep, '--resume', model=args.model))}")
    assert filecmp.cmp(whole, killed, shallow=False), "the bytes differ"
    left = sorted(
        path.name for path in folder.iterdir() if "minisbert" in path.name or "partial" in path.name
    )
    assert not left, left
    print(f"{suffix}: the {killed.stat().st_size:,} bytes are those of the run that was not killed")


def check_append(args: argparse.Namespace, folder: Path) -> None:
    more, target = folder / "more.csv", folder / "killed.parquet"
    write_rows(more, range(args.rows - 50, args.rows + 50), seed=2)
    before = parquet.read_table(target)
    contents = []
    for _ in range(2):
        finish(start(more, "-o", target, "--append", "--key", "id", model=args.model))
        contents.append(target.read_bytes())
    after = parquet.read_table(target)
    assert contents[0] == contents[1], "the second time changed something"
    assert after.slice(0, len(before)).equals(before), "the old rows changed"
    assert after.column("id").to_pylist() == [str(row) for row in range(args.rows + 50)]
    print(
        f"append: 100 rows, 50 of them new, twice: {len(before):,} rows became {len(after):,}; no row doubled"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--row-bytes", type=int, default=300, help="of a vector of the model")
    parser.add_argument("--model", type=Path, default=ROOT / "tests/data/tiny-bert")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.csv", range(args.rows), seed=1)
        for suffix in ("npy", "jsonl", "parquet"):
            check(suffix, args, folder)
        check_append(args, folder)


if __name__ == "__main__":
    main()
