//! The stable codes of problems. A code never changes its meaning; each has a page of the same name
//! under `docs/errors/` (a test says so).

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $title:literal;)+) => {
        $($(#[$doc])* pub const $name: &str = $code;)+

        /// Every code with its title.
        pub const ALL: &[(&str, &str)] = &[$(($code, $title),)+];
    };
}

codes! {
    // Whole requests.
    INVALID_JSON = "invalid_json", "The body is not JSON";
    INVALID_UTF8 = "invalid_utf8", "The request is not UTF-8";
    JSON_TOO_DEEP = "json_too_deep", "The body is nested too deeply";
    JSON_TOO_MANY_VALUES = "json_too_many_values", "The body has too many values";
    BODY_TOO_LARGE = "body_too_large", "The body is too large";
    INVALID_REQUEST = "invalid_request", "The request is not valid";
    NONE_ACCEPTED = "none_accepted", "No event was accepted";
    NEXT_INVALID = "next_invalid", "The next token is not valid";
    UNAUTHORIZED = "unauthorized", "The key is missing or wrong";
    FORBIDDEN = "forbidden", "The key may not do this";
    NOT_FOUND = "not_found", "There is nothing at this address";
    METHOD_NOT_ALLOWED = "method_not_allowed", "The method is not allowed here";
    BELOW_LOWEST_RUNG = "below_lowest_rung", "No answer on an acceptable rung";
    UNAVAILABLE = "unavailable", "Not available at the moment";
    INTERNAL = "internal", "Something failed on our side";
    // Single fields.
    UNKNOWN_FIELD = "unknown_field", "Unknown field";
    UNKNOWN_PARAMETER = "unknown_parameter", "Unknown query parameter";
    DUPLICATE_FIELD = "duplicate_field", "Field given twice";
    DUPLICATE_PARAMETER = "duplicate_parameter", "Query parameter given twice";
    MISSING_FIELD = "missing_field", "Field missing";
    WRONG_TYPE = "wrong_type", "Wrong type";
    OUT_OF_RANGE = "out_of_range", "Value out of range";
    TOO_MANY = "too_many", "Too many entries";
    TEXT_INVALID = "text_invalid", "Text not allowed here";
    CONFLICTING_FIELDS = "conflicting_fields", "Fields that exclude each other";
    RUNG_UNKNOWN = "rung_unknown", "Unknown rung";
    COUNTRY_INVALID = "country_invalid", "Not a country code";
    TIME_INVALID = "time_invalid", "Not an RFC 3339 time";
    TIME_AHEAD = "time_ahead", "Time too far in the future";
    EVENT_TYPE_INVALID = "event_type_invalid", "Not an event type";
    FILTER_TOO_DEEP = "filter_too_deep", "The filter is nested too deeply";
    FILTER_TOO_LARGE = "filter_too_large", "The filter has too many conditions";
    PERCENT_ENCODING_INVALID = "percent_encoding_invalid", "Percent-encoding not valid";
    // Ids; the codes of `skerry_types::IdError`.
    ID_EMPTY = "id_empty", "The id is empty";
    ID_TOO_LONG = "id_too_long", "The id is too long";
    ID_CONTROL_CHARACTER = "id_control_character", "The id has a control character";
    SURFACE_INVALID = "surface_invalid", "Not a surface";
    UUID_INVALID = "uuid_invalid", "Not a UUID";
}

/// The title of a code; the code itself where another crate owns it.
#[must_use]
pub fn title(code: &'static str) -> &'static str {
    ALL.iter()
        .find(|(known, _)| *known == code)
        .map_or(code, |(_, title)| title)
}
