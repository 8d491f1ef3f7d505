"""Makes the data sets of `cargo xtask bench vector` in the cache folder, once.

    python make.py OUT [--movielens DIR] [--sets ml,s1]

For a set: `NAME.base.f32` and `NAME.queries.f32` (row-major little-endian), `NAME.truth.u32` (rows of
the exact ten nearest by cosine for each query, nearest first) and `NAME.json` (counts, recipe,
hashes), which is written last: where it is, the set is whole.

`ml`: real sentence embeddings, 25,000 x 384 and 1,000 queries drawn from the same texts.
`s1`: clustered vectors, 100,000 x 128 and 1,000 queries, from a fixed seed.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

# First: it decides how many threads numpy takes.
from minilm import MiniLm
import numpy as np

import texts

NEAREST = 10
QUERIES = 1_000
ML_BASE = 25_000
S1_BASE, S1_DIM = 100_000, 128
S1_CLUSTERS, S1_SEED = 1_000, 20_240_917
S1_RECIPE = (
    "1,000 centres N(0, I); a cluster's spread along the axes is uniform in 0.2..1.2, times a factor "
    "of its own uniform in 0.5..1.5; sizes are drawn with weights 1 / sqrt(rank); PCG64"
)
# Of the texts with MovieLens, in order: the same on every machine. The vectors' last bits depend on
# the processor's matrix product.
ML_TEXTS_SHA256 = "4621baeedfdbb2b113b80e55638468b24220e2bec20b9833772a6008338e5c33"


def log(text: str) -> None:
    print(f"   {text}", file=sys.stderr)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sources(out: Path) -> list[Path]:
    """The pinned source packages, downloaded once; pip checks what it downloads."""
    folder = out / "sources"
    folder.mkdir(exist_ok=True)
    found = []
    for pin in texts.SOURCES:
        archive = folder / f"{pin.replace('==', '-')}.tar.gz"
        if not archive.exists():
            log(f"download {pin}")
            name = pin.split("==")[0]
            with tempfile.TemporaryDirectory(dir=folder) as fresh:
                subprocess.run(
                    [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
                    + ["--disable-pip-version-check", "--no-binary", name, "--dest", fresh, pin],
                    check=True,
                    stdout=sys.stderr,
                )
                (got,) = Path(fresh).glob("*.tar.gz")
                got.rename(archive)
        found.append(archive)
    return found


def ml(out: Path, movielens: Path | None) -> tuple[np.ndarray, np.ndarray, dict]:
    if movielens and not (movielens / "movies.csv").exists():
        movielens = None
    if movielens is None:
        log("no MovieLens data: the texts are documentation alone (the figures compare among themselves only)")
    chosen = texts.collect(sources(out), movielens, ML_BASE + QUERIES)
    digest = sha256("\n".join(chosen).encode())
    if movielens and ML_TEXTS_SHA256 and digest != ML_TEXTS_SHA256:
        log(f"the texts are not those of the record: {digest}")
    vectors = MiniLm().embed(chosen)
    # The order is a fixed draw already, so any part is of the same distribution.
    about = {
        "texts": "movielens and documentation" if movielens else "documentation",
        "texts_sha256": digest,
        "sources": texts.SOURCES,
    }
    return vectors[QUERIES:], vectors[:QUERIES], about


def s1() -> tuple[np.ndarray, np.ndarray, dict]:
    rng = np.random.Generator(np.random.PCG64(S1_SEED))
    centres = rng.standard_normal((S1_CLUSTERS, S1_DIM), dtype=np.float32)
    spread = rng.uniform(0.2, 1.2, (S1_CLUSTERS, S1_DIM)) * rng.uniform(0.5, 1.5, (S1_CLUSTERS, 1))
    weights = 1 / np.sqrt(np.arange(1, S1_CLUSTERS + 1))
    of = rng.choice(S1_CLUSTERS, S1_BASE + QUERIES, p=weights / weights.sum())
    noise = rng.standard_normal((S1_BASE + QUERIES, S1_DIM), dtype=np.float32)
    vectors = centres[of] + noise * spread.astype(np.float32)[of]
    return vectors[QUERIES:], vectors[:QUERIES], {"recipe": S1_RECIPE, "seed": S1_SEED}


def normalised(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / lengths, dtype="<f4")


def truth(base: np.ndarray, queries: np.ndarray) -> np.ndarray:
    found = np.empty((len(queries), NEAREST), dtype="<u4")
    for at in range(0, len(queries), 100):
        scores = queries[at : at + 100].astype(np.float64) @ base.T.astype(np.float64)
        found[at : at + 100] = np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]
    return found


def write(out: Path, name: str, base: np.ndarray, queries: np.ndarray, about: dict) -> None:
    base, queries = normalised(base), normalised(queries)
    nearest = truth(base, queries)
    files = {"base.f32": base, "queries.f32": queries, "truth.u32": nearest}
    for end, values in files.items():
        (out / f"{name}.{end}").write_bytes(values.tobytes())
    scores = np.take_along_axis(queries @ base.T, nearest.astype(np.int64), axis=1)
    about |= {
        "n": len(base),
        "dim": base.shape[1],
        "queries": len(queries),
        "nearest": NEAREST,
        "metric": "cosine",
        "cosine_of_nearest": round(float(scores[:, 0].mean()), 4),
        "cosine_of_tenth": round(float(scores[:, -1].mean()), 4),
        "cosine_of_any": round(float((queries @ base.T).mean()), 4),
        "sha256": {end: sha256(values.tobytes()) for end, values in files.items()},
    }
    part = out / f"{name}.json.part"
    part.write_text(json.dumps(about, indent=1) + "\n")
    part.rename(out / f"{name}.json")
    log(f"{name}: {about['n']:,} x {about['dim']}, sha256 of base {about['sha256']['base.f32']}")
    log(
        f"{name}: mean cosine of the nearest {about['cosine_of_nearest']}, of the tenth "
        f"{about['cosine_of_tenth']}, of any two {about['cosine_of_any']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--movielens", type=Path)
    parser.add_argument("--sets", default="ml,s1")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets.split(","):
        if (args.out / f"{name}.json").exists():
            continue
        log(f"make the data set {name} (once)")
        made = ml(args.out, args.movielens) if name == "ml" else s1()
        write(args.out, name, *made)


if __name__ == "__main__":
    main()
