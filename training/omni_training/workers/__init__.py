"""Where the expensive rewards are computed: the detail system behind one Protocol, here or in Ray actors."""
