"""Published measurements of Gaudi, what the model says to each, and how far apart the two are.

`published.csv` holds rows that others have published about Gaudi2 and Gaudi3, figures and conditions only, each with
where it stands (`source`, `url_or_arxiv`, `section_or_table`) and how it was read (`confidence`). `use` says what it
may serve for: `cal:*` rows may be fitted to, `val:*` rows only judge. `models.yaml` has the shapes of the models that
they name.

    rows.py    a file → `Row`s                       models.py      a name → shape, or why it has none here
    calls.py   what a `Predictor` can be asked       cases.py       a `Row` → `Case`, or the reason against
    groups.py  which rows are summed up together     directions.py  pairs that differ in one switch
    evaluate.py cases and a predictor → errors

`readers/` knows how each source measured: what was padded, which attention ran, what its throughput counts.
"""
