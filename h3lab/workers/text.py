"""Text in parts: each text is tokenised once, into counts over its part's own vocabulary; vocabularies and document
frequencies are merged, and a part's columns are then mapped to those of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import DataError
from h3lab.preparing.cells import Cells, kind
from h3lab.preparing.labels import dense
from h3lab.preparing.mergeable import Plain
from h3lab.workers import tokens
from h3lab.workers.tfidf import weights

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Counts:
    """Tokenised rows: ``terms`` (sorted strings) and ``matrix`` (rows, terms), CSR of int32."""

    terms: pa.Array
    matrix: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows,)."""
        return (int(self.matrix.shape[0]),)

    def arrays(self) -> dict[str, np.ndarray]:
        """What is kept of it between two passes."""
        offsets, data = _buffers(self.terms)
        m = self.matrix
        return {"offsets": offsets, "terms": data, "indptr": m.indptr, "indices": m.indices, "data": m.data}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> Counts:
        """The inverse of :meth:`arrays`."""
        from scipy import sparse

        terms = _strings(arrays["offsets"], arrays["terms"])
        shape = (len(arrays["indptr"]) - 1, len(terms))
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        return cls(terms, sparse.csr_matrix(parts, shape=shape, copy=False))


class Counting(Plain):
    """CountVectorizer."""

    kept = Counts

    def takes(self, worker: Any, x: Any) -> bool:
        """One raw column of text. An analyzer of the user's own may give terms that are no text."""
        return isinstance(x, Cells) and x.one and not callable(worker.analyzer) and worker.input == "content"

    def digest(self, worker: Any, x: Any) -> Counts:
        """The tokenised rows."""
        text = _text(worker, x)
        return _counted(worker, text) if _is_default(worker) else _analyzed(worker, text)

    def partial(self, worker: Any, x: Counts) -> dict[str, Any]:
        """The terms, in how many rows and how often each stands."""
        offsets, data = _buffers(x.terms)
        width = len(x.terms)
        df = np.bincount(x.matrix.indices, minlength=width)
        stored = np.ones_like(x.matrix.data) if worker.binary else x.matrix.data
        tf = np.bincount(x.matrix.indices, stored, minlength=width).astype(np.int64)
        return {"rows": x.shape[0], "offsets": offsets, "terms": data, "df": df, "tf": tf}

    def merge(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The union of the terms, sorted; counts are sums."""
        import pyarrow as pa
        import pyarrow.compute as pc

        chunks = [_strings(state["offsets"], state["terms"]) for state in states]
        encoded = pa.concat_arrays(chunks).dictionary_encode()
        codes, terms = encoded.indices.to_numpy(), encoded.dictionary
        order = pc.sort_indices(terms).to_numpy()
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        # Sums of whole numbers below 2**53, so bincount's floats are exact.
        df, tf = (
            np.bincount(rank[codes], np.concatenate([state[n] for state in states]), len(terms)) for n in ("df", "tf")
        )
        offsets, data = _buffers(terms.take(pa.array(order)))
        rows = sum(state["rows"] for state in states)
        return {"rows": rows, "offsets": offsets, "terms": data, "df": df.astype(np.int64), "tf": tf.astype(np.int64)}

    def finish(self, worker: Any, state: dict[str, Any], x: Any) -> None:
        """The vocabulary."""
        _finish(worker, state)

    def transform(self, worker: Any, x: Any) -> Any:
        """CSR (rows, terms) of counts."""
        if not isinstance(x, Counts) and not self.takes(worker, x):
            return super().transform(worker, x)
        counts = x if isinstance(x, Counts) else self.digest(worker, x)
        return _mapped(worker, counts)


class Weighting(Counting):
    """TfidfVectorizer."""

    def finish(self, worker: Any, state: dict[str, Any], x: Any) -> None:
        """The vocabulary, and the weights of its terms."""
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfTransformer

        worker._check_params()
        df = _finish(worker, state)
        names = ("norm", "use_idf", "smooth_idf", "sublinear_tf")
        inner = TfidfTransformer(**{name: getattr(worker, name) for name in names})
        worker._tfidf = inner.fit(sparse.csr_matrix((1, len(df)), dtype=worker.dtype))
        if worker.use_idf:
            inner.idf_ = weights(df, state["rows"], worker.smooth_idf, inner.idf_.dtype)

    def transform(self, worker: Any, x: Any) -> Any:
        """CSR (rows, terms) of weighted counts."""
        if not isinstance(x, Counts) and not self.takes(worker, x):
            return super().transform(worker, x)
        return worker._tfidf.transform(super().transform(worker, x), copy=False)


def _finish(worker: Any, state: dict[str, Any]) -> np.ndarray:
    """Set ``vocabulary_`` as CountVectorizer.fit does; (terms,) the document frequencies of those kept."""
    worker._validate_ngram_range()
    worker._warn_for_unused_params()
    worker._validate_vocabulary()
    terms, df = _strings(state["offsets"], state["terms"]).to_pylist(), state["df"]
    if worker.fixed_vocabulary_:
        found = dict(zip(terms, df.tolist(), strict=True))
        out = np.zeros(len(worker.vocabulary_), np.int64)
        for term, position in worker.vocabulary_.items():
            out[position] = found.get(term, 0)
        return out
    if not terms:
        raise ValueError("empty vocabulary; perhaps the documents only contain stop words")
    kept = _kept(worker, df, state["tf"], state["rows"])
    worker.vocabulary_ = {terms[old]: new for new, old in enumerate(kept.tolist())}
    return np.asarray(df[kept])


def _kept(worker: Any, df: np.ndarray, tf: np.ndarray, rows: int) -> np.ndarray:
    """Positions of the terms within min_df, max_df and max_features, ties broken as scikit-learn's sort does."""
    high = worker.max_df if isinstance(worker.max_df, Integral) else worker.max_df * rows
    low = worker.min_df if isinstance(worker.min_df, Integral) else worker.min_df * rows
    if high < low:
        raise ValueError("max_df corresponds to < documents than min_df")
    mask = (df <= high) & (df >= low)
    if worker.max_features is not None and mask.sum() > worker.max_features:
        # scikit-learn sums in the matrix's type and sorts unstably: the same numbers in the same type tie alike.
        sums = tf.astype(np.zeros(0, worker.dtype).sum().dtype)
        best = (-sums[mask]).argsort()[: worker.max_features]
        chosen = np.zeros(len(df), bool)
        chosen[np.flatnonzero(mask)[best]] = True
        mask = chosen
    if not mask.any():
        raise ValueError("After pruning, no terms remain. Try a lower min_df or a higher max_df.")
    return np.flatnonzero(mask)


def _mapped(worker: Any, counts: Counts) -> Any:
    """Counts over the worker's vocabulary, from those over a part's own."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from scipy import sparse

    known = pa.array(list(worker.vocabulary_), pa.string())
    positions = np.fromiter(worker.vocabulary_.values(), np.int32, len(worker.vocabulary_))
    at = pc.index_in(counts.terms, value_set=known)
    target = np.full(len(counts.terms), -1, np.int32)
    there = at.is_valid().to_numpy(zero_copy_only=False)
    target[there] = positions[at.drop_null().to_numpy()]
    m = counts.matrix
    columns = target[m.indices]
    kept = columns >= 0
    before = np.zeros(len(kept) + 1, np.int32 if len(kept) < 2**31 else np.int64)
    np.cumsum(kept, out=before[1:])
    data = np.ones(int(before[-1]), worker.dtype) if worker.binary else m.data[kept].astype(worker.dtype)
    out = sparse.csr_matrix((data, columns[kept], before[m.indptr]), shape=(m.shape[0], len(known)), copy=False)
    out.sort_indices()
    return out


def _text(worker: Any, x: Cells) -> pa.Array:
    column = dense(x.table.column(0))
    if kind(column.type) not in ("text", "null"):
        raise DataError(f"{type(worker).__name__} takes text; column {x.names[0]!r} is {column.type}.")
    if column.null_count:
        raise DataError(
            f"column {x.names[0]!r} has {column.null_count} of {len(column)} rows without text. Fill them in the "
            'source, or put SimpleImputer(strategy="constant", fill_value="") before the vectorizer.'
        )
    return column.combine_chunks()


def _is_default(worker: Any) -> bool:
    """Whether the analyzer is the one that ``tokens`` is."""
    usual = worker.preprocessor is None and worker.tokenizer is None and worker.strip_accents is None
    usual = usual and worker.analyzer == "word" and worker.token_pattern == tokens.PATTERN
    return bool(usual and tuple(worker.ngram_range) == (1, 1))


def _counted(worker: Any, text: pa.Array) -> Counts:
    import pyarrow.compute as pc

    found, lengths = tokens.tokenized(text, worker.lowercase)
    encoded = found.combine_chunks().dictionary_encode()
    terms, codes = encoded.dictionary, encoded.indices.to_numpy()
    order = pc.sort_indices(terms).to_numpy().astype(np.int64)
    stop = worker.get_stop_words()
    if stop:
        order = order[[term not in stop for term in terms.take(order).to_pylist()]]
    rank = np.full(len(terms), -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    columns = rank[codes]
    rows = np.repeat(np.arange(len(text)), lengths)
    kept = columns >= 0
    return Counts(terms.take(order), _matrix(columns[kept], np.bincount(rows[kept], minlength=len(text)), len(order)))


def _analyzed(worker: Any, text: pa.Array) -> Counts:
    """Tokenised by the worker's own analyzer, row by row."""
    import pyarrow as pa

    analyze = worker.build_analyzer()
    known: dict[str, int] = {}
    codes: list[int] = []
    lengths = np.empty(len(text), np.int64)
    for row, document in enumerate(text.to_pylist()):
        before = len(codes)
        codes += [known.setdefault(term, len(known)) for term in analyze(document)]
        lengths[row] = len(codes) - before
    terms = sorted(known)
    rank = np.empty(len(known), np.int32)
    rank[[known[term] for term in terms]] = np.arange(len(terms), dtype=np.int32)
    return Counts(pa.array(terms, pa.string()), _matrix(rank[np.asarray(codes, np.int64)], lengths, len(terms)))


def _matrix(columns: np.ndarray, lengths: np.ndarray, width: int) -> Any:
    from scipy import sparse

    indptr = np.zeros(len(lengths) + 1, np.int32 if len(columns) < 2**31 else np.int64)
    np.cumsum(lengths, out=indptr[1:])
    matrix = sparse.csr_matrix((np.ones(len(columns), np.int32), columns, indptr), shape=(len(lengths), width))
    matrix.sum_duplicates()
    return matrix


def _buffers(strings: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa

    strings = pa.concat_arrays([strings])  # a slice's offsets do not begin at 0
    offsets = np.frombuffer(strings.buffers()[1] or b"\0\0\0\0", np.int32)[: len(strings) + 1]
    data = np.frombuffer(strings.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    return offsets - offsets[0], data


def _strings(offsets: np.ndarray, data: np.ndarray) -> pa.Array:
    import pyarrow as pa

    offsets = np.ascontiguousarray(offsets, np.int32)
    return pa.StringArray.from_buffers(
        len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))
    )
