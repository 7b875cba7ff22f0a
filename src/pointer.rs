//! Trait implementations for pointers.

/// Implements a trait for `Arc<T>` and `Box<T>` where `T` implements it. Clippy reports methods
/// that are missing here, because their default would run instead of the implementation's method.
/// `async` methods come first.
macro_rules! to_the_pointee {
    ($($trait:ident { $($method:tt)* })+) => {$(
        to_the_pointee!(@of std::sync::Arc<T>, $trait, $($method)*);
        to_the_pointee!(@of Box<T>, $trait, $($method)*);
    )+};
    (@of $pointer:ty, $trait:ident,
        $(async fn $waits:ident(&self $(, $input:ident: $given:ty)* $(,)?) -> $later:ty;)*
        $(fn $method:ident(&self $(, $argument:ident: $type:ty)* $(,)?) $(-> $returned:ty)?;)*
    ) => {
        #[async_trait::async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: $trait + ?Sized> $trait for $pointer {
            $(async fn $waits(&self $(, $input: $given)*) -> $later {
                (**self).$waits($($input),*).await
            })*
            $(fn $method(&self $(, $argument: $type)*) $(-> $returned)? {
                (**self).$method($($argument),*)
            })*
        }
    };
}
pub(crate) use to_the_pointee;
