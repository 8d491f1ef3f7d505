//! Titles of films that nobody made.

use rand::Rng;

const ADJECTIVES: [&str; 28] = [
    "Silent",
    "Crimson",
    "Last",
    "Hidden",
    "Burning",
    "Broken",
    "Golden",
    "Frozen",
    "Distant",
    "Paper",
    "Second",
    "Lonely",
    "Electric",
    "Quiet",
    "Restless",
    "Hollow",
    "Northern",
    "Midnight",
    "Forgotten",
    "Winter",
    "Perfect",
    "Stolen",
    "Velvet",
    "Wild",
    "Borrowed",
    "Endless",
    "Glass",
    "Bitter",
];
const NOUNS: [&str; 34] = [
    "Harbour",
    "River",
    "Letter",
    "Garden",
    "Signal",
    "Orchard",
    "Machine",
    "Island",
    "Promise",
    "Horizon",
    "Witness",
    "Lighthouse",
    "Carnival",
    "Equation",
    "Station",
    "Shadow",
    "Kingdom",
    "Voyage",
    "Mirror",
    "Bridge",
    "Detective",
    "Summer",
    "Passenger",
    "Forest",
    "Concert",
    "Inheritance",
    "Skerry",
    "Tide",
    "Ledger",
    "Comet",
    "Archive",
    "Tenant",
    "Verdict",
    "Compass",
];
const PLACES: [&str; 16] = [
    "Trieste",
    "the North",
    "Valparaiso",
    "Elm Street",
    "the Dunes",
    "Bergen",
    "Ashford",
    "the Deep",
    "Lisbon",
    "Orkney",
    "the Plains",
    "Samarkand",
    "Kyoto",
    "the Borderlands",
    "Halifax",
    "Marrakesh",
];
const NAMES: [&str; 16] = [
    "Ada", "Bruno", "Clara", "Dmitri", "Elena", "Felix", "Greta", "Hassan", "Ingrid", "Jonas",
    "Katja", "Leon", "Mira", "Noor", "Oskar", "Petra",
];

/// A title; parts of a series carry their number.
pub fn title(rng: &mut impl Rng, part: usize, base: Option<&str>) -> String {
    if let Some(base) = base {
        return format!(
            "{base} {}",
            ["", "II", "III", "IV", "V"]
                .get(part)
                .copied()
                .unwrap_or("Returns")
        );
    }
    let mut one = |list: &[&'static str]| list[rng.random_range(0..list.len())];
    let (adjective, noun, place, name) = (one(&ADJECTIVES), one(&NOUNS), one(&PLACES), one(&NAMES));
    match rng.random_range(0..6u8) {
        0 | 1 => format!("The {adjective} {noun}"),
        2 => format!("{noun} of {place}"),
        3 => format!("{name} and the {noun}"),
        4 => format!("{adjective} {noun}"),
        _ => format!("A {noun} in {place}"),
    }
}
