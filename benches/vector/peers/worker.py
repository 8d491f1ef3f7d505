"""One peer engine behind the line protocol of `cargo xtask bench vector` (src/protocol.rs).

    python worker.py hnswlib|faiss|usearch

A request is one line of JSON on stdin, an answer one line on stdout. One thread, unless a request
says how many; vectors have length 1, so that the inner product, the cosine and the Euclidean distance order alike and each engine may
use its quickest. All queries go in one call, so that Python's share of the time is nothing.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np

LINKS = 16
EF_BUILD = 200
# Vectors of a base that stays on disk that are put in at a time.
PART = 20_000


class Hnswlib:
    def __init__(self, dim: int, count: int) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=dim)
        self.index.set_num_threads(1)
        self.index.init_index(max_elements=count, M=LINKS, ef_construction=EF_BUILD, random_seed=100)

    def add(self, vectors: np.ndarray, threads: int = 1) -> None:
        self.index.add_items(vectors, num_threads=threads)

    def search(self, queries: np.ndarray, k: int, ef: int, threads: int = 1) -> np.ndarray:
        self.index.set_ef(ef)
        return self.index.knn_query(queries, k=k, num_threads=threads)[0]

    def save(self, path: str) -> None:
        self.index.save_index(path)

    def read(self, path: str, count: int) -> None:
        self.index.load_index(path, max_elements=count)


class Faiss:
    def __init__(self, dim: int, count: int) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self.index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_L2)
        self.index.hnsw.efConstruction = EF_BUILD

    def add(self, vectors: np.ndarray) -> None:
        self.index.add(vectors)

    def search(self, queries: np.ndarray, k: int, ef: int) -> np.ndarray:
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, k)[1]


class Usearch:
    def __init__(self, dim: int, count: int) -> None:
        from usearch.index import Index

        # Twice the links on the lowest layer, as in the others.
        self.index = Index(
            ndim=dim, metric="ip", dtype="f32", connectivity=LINKS, expansion_add=EF_BUILD
        )

    def add(self, vectors: np.ndarray) -> None:
        self.index.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=1)

    def search(self, queries: np.ndarray, k: int, ef: int) -> np.ndarray:
        self.index.expansion_search = ef
        return self.index.search(queries, k, threads=1).keys


ENGINES = {"hnswlib": Hnswlib, "faiss": Faiss, "usearch": Usearch}


def resident_bytes(kind: str) -> int | None:
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            (kib,) = [line.split()[1] for line in file if line.startswith(kind + ":")]
            return int(kib) * 1024
    except OSError:
        return None


class Worker:
    def __init__(self, engine: str) -> None:
        self.engine = ENGINES[engine]

    def load(self, base: str, queries: str, dim: int, mapped: bool = False) -> dict:
        if mapped:
            self.base = np.memmap(base, dtype="<f4", mode="r").reshape(-1, dim)
        else:
            self.base = np.fromfile(base, dtype="<f4").reshape(-1, dim)
        # What lies in the file is no part of the index.
        self.memory = "Anonymous" if mapped else "Rss"
        self.queries = np.fromfile(queries, dtype="<f4").reshape(-1, dim)
        # What the engine's module takes is no part of its index.
        self.engine(dim, 1).add(self.base[:1])
        return {"rows": len(self.base), "queries": len(self.queries)}

    def build(self, threads: int = 1, index: str | None = None) -> dict:
        gc.collect()
        before = resident_bytes(self.memory)
        about = index and Path(index + ".json")
        self.index = self.engine(self.base.shape[1], len(self.base))
        if about and about.exists() and (figures := json.loads(about.read_text()))["threads"] == threads:
            self.index.read(index, len(self.base))
        elif about:
            figures = {"threads": threads, **self.put_in_parts(threads)}
            self.index.save(index)
            figures["file_bytes"] = os.path.getsize(index)
            # Last: where it is, the index is whole.
            about.write_text(json.dumps(figures))
        else:
            started = time.process_time()
            self.index.add(self.base)
            figures = {"cpu_s": time.process_time() - started}
        gc.collect()
        after = resident_bytes(self.memory)
        figures.pop("threads", None)
        return {**figures, "resident_bytes": after - before if before else None, "hot_bytes": None}

    def put_in_parts(self, threads: int) -> dict:
        began, started = time.monotonic(), time.process_time()
        for at in range(0, len(self.base), PART):
            self.index.add(self.base[at : at + PART], threads)
            done = min(at + PART, len(self.base))
            print(f"      built: {100 * done // len(self.base)} %", file=sys.stderr, flush=True)
        return {"cpu_s": time.process_time() - started, "wall_s": time.monotonic() - began}

    def search(self, ef: int, k: int, queries: int, repeat: int, threads: int = 1) -> dict:
        asked = self.queries[:queries]
        began, started = time.monotonic(), time.process_time()
        for _ in range(repeat):
            found = self.index.search(asked, k, ef, *([threads] if threads > 1 else []))
        cpu_s = (time.process_time() - started) / repeat
        wall_s = (time.monotonic() - began) / repeat
        rows = np.asarray(found).astype(np.uint32).ravel().tolist()
        return {"cpu_s": cpu_s, "wall_s": wall_s, "rows": rows}


def main() -> None:
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        operation = request.pop("op")
        if operation not in ("load", "build", "search"):
            raise SystemExit(f"unknown operation {operation!r}")
        print(json.dumps(getattr(worker, operation)(**request)), flush=True)


if __name__ == "__main__":
    main()
