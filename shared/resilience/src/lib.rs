//! Pure state machines with time as an argument: ladder, breaker, budgets, throttle.
