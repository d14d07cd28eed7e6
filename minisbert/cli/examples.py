"""What stands below the options in the help of each command: examples, and what else is to be known."""

from __future__ import annotations

__all__ = [
    "CHECK",
    "COMPARE",
    "CONVERT",
    "ENCODE",
    "EVALUATE",
    "INFO",
    "MAIN",
    "RERANK",
    "RETRIEVAL",
    "SEARCH",
    "SIMILAR",
    "SIMILARITY",
    "STS",
    "TRAIN",
]

MAIN = """\
examples:
  minisbert similarity "a cat on the mat" "a kitten on a rug"
  minisbert search "how do I reset my password" questions.txt
  minisbert encode titles.txt -o titles.npy

Each command has its own help: minisbert encode --help"""
ENCODE = """\
examples:
  minisbert encode titles.txt -o titles.npy
  minisbert encode reviews.csv --field body --normalize -o reviews.parquet
  minisbert encode export.csv.gz --field body --encoding cp1252 -o export.npy
  minisbert encode products.csv --keep -o products.parquet
  minisbert encode new.csv --keep --key id --append -o products.parquet
  cat titles.txt | minisbert encode -o - | head -n 3

Row i of the output is text i of the input: with --on-bad-lines null, a line
that can't be read has a vector of NaN, or null in JSONL. Columns that are kept
are strings in CSV, and in JSONL of the type that all their values have.

The output appears, or replaces an older file, only when all of it has been
written. Until then OUTPUT.partial keeps the vectors that are done. A run that
is cut short after ten seconds or more, or by kill -9, leaves it there: --resume
goes on from it to the same bytes.

Parquet says how its vectors were made, which search and --append check: with
which checkpoint, dtype, prompt and so on. JSONL and .npy can't say that.

The precisions int8 and uint8 need the range of the whole collection: use encode
in Python for them."""
SIMILARITY = """\
examples:
  minisbert similarity "a cat on the mat" "a kitten on a rug" "tax returns"
  minisbert similarity --json -- "-5 degrees" "freezing cold"

Long texts are shortened to fit the terminal; --json gives them whole."""
SEARCH = """\
examples:
  minisbert search "how do I reset my password" questions.txt
  minisbert search "waterproof boots" products.csv --field title -k 20 --json
  minisbert search "boots" products.parquet --where brand=Acme --show id
  minisbert search "boots" titles.txt --vectors titles.npy
  minisbert search "boots" faq.txt -k 100 --json | minisbert rerank "boots" -

Vectors that encode wrote are used as they are: those in Parquet, in JSONL, or
in the file that --vectors names. Parquet says which checkpoint made them, and
that has to be this one; of others the first few texts are encoded to see. Texts
without vectors are encoded, those of a pipe always.

Blank texts are left out. Long ones are shortened to fit the terminal; --json
gives them whole, with all fields of their rows, one JSON object a line: rerank
reads that."""
SIMILAR = """\
examples:
  minisbert similar products.parquet
  minisbert similar questions.txt --threshold 0.8
  minisbert similar products.csv --field title --json --max-pairs 1000000

Pairs are printed best first, by the cosine of their vectors. Where the file has
vectors, as Parquet and JSONL have that encode wrote, no model is loaded. All
texts are compared with all others: a million take some hours."""
RERANK = """\
examples:
  minisbert rerank "how do I reset my password" questions.txt
  minisbert rerank "waterproof boots" products.csv --field title -k 20 --json
  minisbert search "boots" faq.txt -k 100 --json | minisbert rerank "boots" -

A cross-encoder reads the query together with each text, which is better than
what search does, and far slower: it is for some hundred texts, such as the best
that search finds. Their lines are then those of the file that was searched, and
with --json what search said of them becomes previous_rank and previous_score."""
INFO = """\
examples:
  minisbert info
  minisbert info --model ./my-model --json"""
CHECK = """\
examples:
  minisbert check ./my-model
  minisbert check ./my-model --json
  minisbert check ./my-model --against-torch

Exit status: 0 if minisbert loads it, 1 if something is refused or, with
--against-torch, differs from sentence-transformers by more than rounding."""
EVALUATE = """\
examples:
  minisbert evaluate sts sts-test.csv
  minisbert evaluate retrieval --queries q.jsonl --corpus c.jsonl --qrels q.tsv

Each has its own help: minisbert evaluate sts --help"""
STS = """\
examples:
  minisbert evaluate sts sts-test.csv
  minisbert evaluate sts sick.tsv --columns sentence_A sentence_B relatedness
  minisbert evaluate sts sts-test.csv --precision float32 int8 ubinary --json
  minisbert evaluate sts sts-test.csv --dtype float32 int8 --truncate-dim 64 384

FILE is CSV or TSV with a header, or JSONL, with the columns sentence1,
sentence2 and score. Fields of TSV have no quotes around them. Correlations are
computed as EmbeddingSimilarityEvaluator of sentence-transformers does."""
RETRIEVAL = """\
examples:
  minisbert evaluate retrieval --queries q.jsonl --corpus c.jsonl --qrels q.tsv
  minisbert evaluate retrieval --queries q.tsv --corpus c.tsv --qrels r.txt \\
    --model ./mine ./theirs --precision float32 ubinary --plot quality.png

Files are CSV or TSV with a header, or JSONL, as BEIR has them: queries with _id
and text, a corpus also with title, and qrels with query-id, corpus-id and
score; or qrels as TREC has them, without a header. What scores above 0 is
relevant, and counts as 1. --json has more metrics than the table: accuracy,
precision and recall at 1, 3, 5 and 10, nDCG and MRR at 10, and MAP at 100, all
as InformationRetrievalEvaluator of sentence-transformers computes them."""
CONVERT = """\
examples:
  minisbert convert all-MiniLM-L6-v2 -o ./minilm-int8 --dtype int8
  minisbert convert ./my-model -o ./my-model-float16

float16 and bfloat16 halve a file of float32, and sentence-transformers loads
the folder too. int8 leaves a quarter, for minisbert alone: each command and
minisbert.load take the folder, and compute in int8. minisbert compare tells
what that costs on your texts. The folder appears when it is complete."""
COMPARE = """\
examples:
  minisbert compare ./my-model texts.txt --dtype int8
  minisbert compare ./my-model reviews.csv --field body --dtype bfloat16 --json
  minisbert compare ./my-model-int8 texts.txt --against ./my-model

Blank texts are left out. Times are of both in turns: other work on the machine
makes them worthless."""
TRAIN = """\
examples:
  minisbert train pairs.csv -o my-model
  minisbert train pairs.csv -o my-model --batch-size 128 --hold-out 200
  minisbert train pairs.csv -o my-model --batch-size 128 --hold-out 200 --resume

DATA is CSV with a header, or JSONL: the columns are an anchor, its positive,
and hard negatives if there are any; for CosineSimilarityLoss two texts and a
score. With several files a batch is of one of them. The output is a checkpoint,
with train.jsonl, the loss of each step, and loss.png where matplotlib is
installed. It appears once it is complete. A run that is interrupted goes on
with --resume and its other options as they were, and ends with the same bits."""
