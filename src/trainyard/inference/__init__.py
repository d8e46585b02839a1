"""Answers from a bundle or an export: which format runs, and what a user hands it. Free of torch at import."""
