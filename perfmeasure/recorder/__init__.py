"""The time machine: packets with a cutoff per connection, kept in segments, indexed, queried later."""
