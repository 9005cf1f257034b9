"""Finding the sequence in which the ops of a program enter the in-order queues.

problem    the program as numbers
evaluate   the time of a sequence, and list scheduling by priorities
rules      priorities to begin with
exact      the best sequence of a small program
improve    local search
search     all of it within a budget
"""
