"""A VM and its device on the way to another host: RAM, link, hand-over, and who watches."""
