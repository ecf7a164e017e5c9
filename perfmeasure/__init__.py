"""Measures how a network performs for its users, Tor first, and says where the time went.

The way of the data, which is also the order in which to read the package::

    tgen/  tor/             transfers and Tor's control port write what happened ...
      |-> logfile           ... into append-only logs, one line a fact, stamped in UTC
      |-> analysis/         reads the logs back: source -> tgen, torctl -> join -> database
      |-> web/              publishes the database and serves the docroot over HTTP

``measurement`` runs all of it, ``supervisor`` keeps the children alive, ``cli`` is the door.
"""

__version__ = "0.1.0"
