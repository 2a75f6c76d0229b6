"""MXNet's update operators as pure functions, made of the rules of the algorithms."""
