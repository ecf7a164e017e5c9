"""Drive transfers: GraphML models, the external tgen program, the built-in generator."""
