"""Losses over logits, cosines with the class weights, or features; each says which by its ``takes``."""
