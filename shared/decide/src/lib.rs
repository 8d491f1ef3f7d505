//! What edge and origin must do alike: filter, rules, rights, fold-in, scoring, bandit draw, template reasons. Pure.
