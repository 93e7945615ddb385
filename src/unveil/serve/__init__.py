"""Run, files → answers: predict, embed, search, report."""

from unveil.serve.embed import embed, embeddings
from unveil.serve.index import Hit, nearest
from unveil.serve.predict import predict, print_rows, write_rows
from unveil.serve.report import report
from unveil.serve.search import print_hits, search, search_page

__all__ = [
    "Hit",
    "embed",
    "embeddings",
    "nearest",
    "predict",
    "print_hits",
    "print_rows",
    "report",
    "search",
    "search_page",
    "write_rows",
]
