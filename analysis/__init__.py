"""Consumes logs, gives the database: source -> tgen, torctl -> join -> database -> summaries.

Import it as ``perfmeasure.analysis``. Nothing in here imports Twisted, stem's controller or bcc.
"""
