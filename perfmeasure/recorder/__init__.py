"""The time machine: packets up to a cutoff per connection, stored, indexed, found again later."""
