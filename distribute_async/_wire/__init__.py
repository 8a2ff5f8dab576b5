"""What goes over the wire: pure values, no clock, no socket."""
