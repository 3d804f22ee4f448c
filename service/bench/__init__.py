"""``sparsedial bench``: what each level reaches alone and over HTTP, and where the time goes. Read ``run.py`` first."""
