"""What goes over the wire: pure values, no clock, no socket."""

from distribute_async._public import publish

publish(__name__)
