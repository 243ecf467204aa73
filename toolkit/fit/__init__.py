"""From a labelled set to directions: record activations, fit probes, rank heads, report.

In: a model and a list of `Example`. Out: `ITIDirections`, the report and figures of a `Fit`.
May import `foundation` and `data`.
"""
