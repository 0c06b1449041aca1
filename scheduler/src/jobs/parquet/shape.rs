//! What a file's columns may be: a value a row, or a list of them.

use orion_proto::{Error, Result};
use parquet::{
    basic::{ConvertedType, LogicalType, Repetition, Type as Physical},
    schema::types::Type,
};

/// How a column's values belong to rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) is_list: bool,
    /// The definition level from which on a list has an element; of a list.
    pub(super) elements: i16,
    pub(super) is_unsigned: bool,
    /// Why no JSON is made of its values, where none is.
    pub(super) no_number: Option<&'static str>,
}

/// The shape of a column of this type.
///
/// # Errors
/// INVALID_ARGUMENT where it is neither a value nor a list.
pub(super) fn shape(field: &Type) -> Result<Shape> {
    let own = level(field);
    if field.is_primitive() {
        let is_list = is_repeated(field);
        return Ok(Shape { is_list, elements: own, ..of_values(field) });
    }
    let wrong = || {
        let text = format!("column '{}' must be a value or a list of values", field.name().escape_default());
        Error::invalid(text)
    };
    let info = field.get_basic_info();
    let is_list = info.converted_type() == ConvertedType::LIST || info.logical_type_ref() == Some(&LogicalType::List);
    let [repeated] = field.get_fields() else { return Err(wrong()) };
    if !is_list || is_repeated(field) || !is_repeated(repeated) {
        return Err(wrong());
    }
    let elements = own + level(repeated);
    if repeated.is_primitive() {
        return Ok(Shape { is_list, elements, ..of_values(repeated) });
    }
    match repeated.get_fields() {
        [element] if element.is_primitive() && !is_repeated(element) => {
            Ok(Shape { is_list, elements, ..of_values(element) })
        }
        _ => Err(wrong()),
    }
}

fn is_repeated(field: &Type) -> bool {
    let info = field.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

/// What it adds to the definition level of what is in it.
fn level(field: &Type) -> i16 {
    let info = field.get_basic_info();
    i16::from(info.has_repetition() && info.repetition() != Repetition::REQUIRED)
}

/// What is known of a column by the type of its values.
fn of_values(field: &Type) -> Shape {
    let info = field.get_basic_info();
    let is_decimal = info.converted_type() == ConvertedType::DECIMAL
        || matches!(info.logical_type_ref(), Some(LogicalType::Decimal(_)));
    let no_number = match field.get_physical_type() {
        _ if is_decimal => Some("it is a decimal, write a floating-point number"),
        Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => Some("it is of a type that has no JSON"),
        _ => None,
    };
    Shape { is_unsigned: is_unsigned(field), no_number, ..Shape::default() }
}

fn is_unsigned(field: &Type) -> bool {
    let info = field.get_basic_info();
    let converted = [ConvertedType::UINT_8, ConvertedType::UINT_16, ConvertedType::UINT_32, ConvertedType::UINT_64];
    converted.contains(&info.converted_type())
        || matches!(info.logical_type_ref(), Some(LogicalType::Integer(kind)) if !kind.is_signed)
}
