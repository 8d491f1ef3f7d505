"""The texts that the `ml` set embeds: film titles and tags, and paragraphs of documentation.

Invariant: the same pinned packages and the same MovieLens files give the same texts in the same
order on every machine; nothing depends on the version of Python, the file system's order or chance.
"""

import csv
import hashlib
import re
import tarfile
from pathlib import Path

# Source packages (sdists) rich in prose, each pure Python, so that pip needs no compiler to fetch it.
SOURCES = [
    "django==5.2.19",
    "networkx==3.6.1",
    "sqlalchemy==2.1.9",
    "sympy==1.14.0",
    "twisted==26.10.0",
]

PARAGRAPH_CHARS_MIN = 48
PARAGRAPH_CHARS_MAX = 2_000
PARAGRAPH_WORDS_MIN = 8
LETTERS_SHARE_MIN = 0.75

DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
# `:role:`text <target>`` is "text", ``code`` is "code".
ROLE = re.compile(r":[\w:.+-]+:`~?([^`<]*?)\s*(?:<[^`]*>)?`")
LINK = re.compile(r"`([^`<]+?)\s*<[^`]*>`_{1,2}")
MARKS = re.compile(r"[`*]+")
CODE = ("def ", "class ", "import ", "from ", "SELECT ", "INSERT ", "CREATE ", "DELETE ", "UPDATE ")
SPACE = re.compile(r"\s+")


def films(folder: Path) -> list[str]:
    """Titles, and every distinct tag."""
    with open(folder / "movies.csv", encoding="utf-8", newline="") as file:
        titles = [row["title"].strip() for row in csv.DictReader(file)]
    with open(folder / "tags.csv", encoding="utf-8", newline="") as file:
        tags = sorted({row["tag"].strip() for row in csv.DictReader(file)})
    return titles + tags


def paragraphs(text: str) -> list[str]:
    """Prose of reStructuredText or of a docstring; no code, tables, headings or directives."""
    found = []
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        block = block.strip("\n")
        first = block.lstrip()
        if not first or first.startswith(("..", ">>>", "::", ":", "|", "+-", "==", "--", "#", "$", "@")):
            continue
        if first.startswith(CODE):
            continue
        if ">>>" in block or "====" in block or "----" in block or "+--" in block:
            continue
        plain = ROLE.sub(r"\1", block)
        plain = LINK.sub(r"\1", plain)
        plain = SPACE.sub(" ", MARKS.sub("", plain)).strip(" -:")
        letters = sum(c.isalpha() or c == " " for c in plain)
        if (
            PARAGRAPH_CHARS_MIN <= len(plain) <= PARAGRAPH_CHARS_MAX
            and plain.count(" ") + 1 >= PARAGRAPH_WORDS_MIN
            and letters >= LETTERS_SHARE_MIN * len(plain)
        ):
            found.append(plain)
    return found


def documentation(archives: list[Path]) -> list[str]:
    found = []
    for archive in sorted(archives):
        with tarfile.open(archive) as tar:
            members = [member for member in tar.getmembers() if member.isfile()]
            for member in sorted(members, key=lambda member: member.name):
                name = member.name.lower()
                in_docs = "/doc" in name and name.endswith((".rst", ".txt"))
                is_code = name.endswith(".py") and "/test" not in name
                if not (in_docs or is_code):
                    continue
                text = tar.extractfile(member).read().decode("utf-8", "replace")
                if is_code:
                    # Docstrings by their quotes: what `ast` accepts changes with Python's version.
                    for string in DOCSTRING.findall(text):
                        lines = [line.strip() for line in string.split("\n")]
                        found.extend(paragraphs("\n".join(lines)))
                else:
                    found.extend(paragraphs(text))
    return found


def distinct(texts: list[str], seen: set[str]) -> list[str]:
    """The first of each, whatever its case and spacing."""
    kept = []
    for text in texts:
        key = SPACE.sub(" ", text).strip().casefold()
        if key and key not in seen:
            seen.add(key)
            kept.append(text)
    return kept


def order(text: str, salt: str) -> str:
    """A fixed draw: the same text gets the same place everywhere."""
    return hashlib.sha256(f"{salt}\0{text}".encode()).hexdigest()


def collect(archives: list[Path], movielens: Path | None, count: int) -> list[str]:
    """`count` texts in a fixed shuffled order: all films, filled with documentation."""
    seen: set[str] = set()
    chosen = distinct(films(movielens), seen) if movielens else []
    prose = sorted(distinct(documentation(archives), seen), key=lambda text: order(text, "prose"))
    if len(chosen) + len(prose) < count:
        raise SystemExit(f"only {len(chosen)} + {len(prose)} texts, {count} are needed")
    chosen += prose[: count - len(chosen)]
    return sorted(chosen, key=lambda text: order(text, "place"))
