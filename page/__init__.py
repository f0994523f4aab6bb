"""The page's parts, put together by ``app.py``."""
