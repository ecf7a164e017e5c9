"""Publish databases into the docroot and serve it over HTTP."""
