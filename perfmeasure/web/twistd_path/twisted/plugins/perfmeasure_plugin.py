"""``twistd perfmeasure``: where Twisted looks for it (docs/adr/0002-twistd-plugin.md)."""

# ruff: noqa: INP001 - the folder has to be no package, or Twisted passes it over

from twisted.application.service import ServiceMaker

serve = ServiceMaker(
    "perfmeasure docroot",
    "perfmeasure.web.twistd",
    "Serve the docroot of a measurement over HTTP.",
    "perfmeasure",
)
