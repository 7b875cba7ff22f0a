//! A trait's promises for pointers to whatever keeps them.

/// Implements a trait for `Arc` and `Box` of whatever implements it. Clippy sees when one of the
/// trait's methods is missing here, as the trait's own version of it would be run then, instead of
/// the implementation's. Methods that are `async` come first.
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
