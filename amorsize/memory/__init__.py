"""Records, kept between calls and processes."""
