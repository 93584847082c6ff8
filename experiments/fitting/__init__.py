"""Parts of fit_nerf.py: the captured views, and what a fitted field leaves behind."""
