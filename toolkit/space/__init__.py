"""A page in the browser: one prompt answered at several strengths side by side."""
