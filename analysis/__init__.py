"""Consumes logs, gives the database: source -> scans -> assembly -> join -> database.

Import it as ``perfmeasure.analysis``. Nothing in here imports Twisted, stem's controller or bcc.
"""
