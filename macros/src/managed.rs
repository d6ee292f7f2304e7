//! `#[managed]`.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, ImplItem, ImplItemFn, ItemImpl, Pat, PathArguments,
    ReceiverKind, Result, ReturnType, Type, Visibility, parse2,
};

/// Leaves the methods as they are and adds the proxy.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let block: ItemImpl = parse2(item)?;
    let class = class_of(&block)?;
    let proxy = parse_name(attribute)?.unwrap_or_else(|| format_ident!("{class}Proxy"));
    let mut methods = Vec::new();
    let mut travelling = Vec::new();
    let mut errors: Option<Error> = None;
    for item in &block.items {
        let ImplItem::Fn(function) = item else { continue };
        if !matches!(function.vis, Visibility::Public(_)) {
            continue;
        }
        match method(function, &class, &mut travelling) {
            Ok(tokens) => methods.push(tokens),
            Err(error) => match &mut errors {
                Some(errors) => errors.combine(error),
                None => errors = Some(error),
            },
        }
    }
    if let Some(errors) = errors {
        // The methods themselves are right: nobody else is to complain about them.
        let errors = errors.to_compile_error();
        return Ok(quote!(#block #errors));
    }
    let handle = handle(&proxy, &class);
    Ok(quote! {
        #block

        #handle

        impl #proxy {
            #(#methods)*
        }

        const _: () = {
            fn travels<T: ::multiproc::Data>() {}
            #[allow(dead_code)]
            fn all_that_travel() {
                #(#travelling)*
            }
        };
    })
}

fn parse_name(attribute: TokenStream) -> Result<Option<Ident>> {
    if attribute.is_empty() {
        return Ok(None);
    }
    let pair: syn::MetaNameValue = parse2(attribute)?;
    match (&pair.path, &pair.value) {
        (path, syn::Expr::Path(name))
            if path.is_ident("proxy") && name.path.get_ident().is_some() =>
        {
            Ok(name.path.get_ident().cloned())
        }
        _ => Err(Error::new_spanned(pair, "expected `proxy = Name`")),
    }
}

fn class_of(block: &ItemImpl) -> Result<Ident> {
    if let Some((of, _)) = &block.trait_ {
        let message = "a managed type's own methods are exposed, not those of a trait: put the \
                       attribute on `impl Type`";
        return Err(Error::new_spanned(of, message));
    }
    if !block.generics.params.is_empty() {
        let message = "a managed type cannot be generic: manage a type that names its parameters";
        return Err(Error::new_spanned(&block.generics, message));
    }
    match &*block.self_ty {
        Type::Path(path) if path.qself.is_none() => match path.path.get_ident() {
            Some(class) => Ok(class.clone()),
            None => Err(Error::new_spanned(path, "expected the plain name of a type")),
        },
        other => Err(Error::new_spanned(other, "expected the plain name of a type")),
    }
}

/// The proxy's type, and what every handle has.
fn handle(proxy: &Ident, class: &Ident) -> TokenStream {
    let doc = format!(
        "A proxy of a [`{class}`] that a [`Manager`](::multiproc::Manager)'s server holds; written \
         by `#[multiproc::managed]`."
    );
    let name = proxy.to_string();
    quote! {
        #[doc = #doc]
        pub struct #proxy(::multiproc::manager::Proxy<#class>);

        impl ::core::clone::Clone for #proxy {
            fn clone(&self) -> Self {
                Self(::core::clone::Clone::clone(&self.0))
            }
        }

        impl ::core::fmt::Debug for #proxy {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_tuple(#name).field(&self.0).finish()
            }
        }

        impl ::core::cmp::PartialEq for #proxy {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }

        impl ::core::cmp::Eq for #proxy {}

        impl ::multiproc::__private::serde::Serialize for #proxy {
            fn serialize<S: ::multiproc::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                ::multiproc::__private::serde::Serialize::serialize(&self.0, serializer)
            }
        }

        impl<'de> ::multiproc::__private::serde::Deserialize<'de> for #proxy {
            fn deserialize<D: ::multiproc::__private::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::core::result::Result<Self, D::Error> {
                ::multiproc::__private::serde::Deserialize::deserialize(deserializer).map(Self)
            }
        }
    }
}

/// What a method takes besides the object.
enum Receiver {
    Shared,
    Exclusive,
    /// None: it makes an object.
    Constructor,
    /// None: it makes an object, or an error of this type.
    FallibleConstructor(TokenStream),
}

fn method(
    function: &ImplItemFn,
    class: &Ident,
    travelling: &mut Vec<TokenStream>,
) -> Result<TokenStream> {
    let signature = &function.sig;
    check(function)?;
    let output = match &signature.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => {
            refuse_references(
                ty,
                "what a method returns travels, so it cannot be borrowed: \
                                   return an owned value",
            )?;
            replace_self(ty.to_token_stream(), class)
        }
    };
    let receiver = receiver(function, class)?;
    // A method that is not there has types that may not be there.
    let conditions: Vec<&Attribute> =
        function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
    let (mut names, mut types) = (Vec::new(), Vec::new());
    for argument in &signature.inputs {
        let FnArg::Typed(argument) = argument else { continue };
        refuse_references(
            &argument.ty,
            "an argument of a managed method travels, so it cannot be \
                                         borrowed: take an owned value (`String` instead of `&str`)",
        )?;
        names.push(match &*argument.pat {
            Pat::Ident(name) if name.subpat.is_none() => name.ident.clone(),
            _ => format_ident!("argument_{}", names.len()),
        });
        let ty = replace_self(argument.ty.to_token_stream(), class);
        travelling.push(quote_spanned!(argument.ty.span()=> #(#conditions)* travels::<#ty>();));
        types.push(ty);
    }
    if names.len() > 12 {
        let message = "a managed method can have 12 arguments: put them into a struct";
        return Err(Error::new_spanned(&signature.inputs, message));
    }
    let name = &signature.ident;
    let kept = function.attrs.iter().filter(|attribute| is_kept(attribute));
    let is_told = function.attrs.iter().any(|attribute| attribute.path().is_ident("doc"));
    let told = format!("Calls [`{class}::{name}`] in the server.");
    let told = (!is_told).then(|| quote!(#[doc = #told]));
    let head = quote!(#told #(#kept)*);
    let pattern = quote!((#(#names,)*): (#(#types,)*));
    let (call, arguments) = (quote!(#class::#name), quote!((#(#names,)*)));
    // Names that no argument of the user's is confused with.
    let [manager, object] = ["manager", "object"].map(|name| Ident::new(name, Span::mixed_site()));
    if let Receiver::Constructor = receiver {
        return Ok(quote! {
            #head
            pub fn #name(
                #manager: &::multiproc::Manager
                #(, #names: #types)*
            ) -> ::multiproc::Result<Self> {
                #manager.create(|#pattern| #call(#(#names),*), #arguments).map(Self)
            }
        });
    }
    if let Receiver::FallibleConstructor(error) = receiver {
        let span = signature.output.span();
        travelling.push(quote_spanned!(span=> #(#conditions)* travels::<#error>();));
        return Ok(quote! {
            #head
            pub fn #name(
                #manager: &::multiproc::Manager
                #(, #names: #types)*
            ) -> ::multiproc::Result<::core::result::Result<Self, #error>> {
                let made = #manager.try_create(|#pattern| #call(#(#names),*), #arguments)?;
                ::core::result::Result::Ok(made.map(Self))
            }
        });
    }
    if let ReturnType::Type(_, ty) = &signature.output {
        travelling.push(quote_spanned!(ty.span()=> #(#conditions)* travels::<#output>();));
    }
    let (with, reference) = match receiver {
        Receiver::Shared => (quote!(with), quote!(&#class)),
        _ => (quote!(with_mut), quote!(&mut #class)),
    };
    Ok(quote! {
        #head
        pub fn #name(&self #(, #names: #types)*) -> ::multiproc::Result<#output> {
            self.0.#with(
                |#object: #reference, #pattern| -> #output { #call(#object #(, #names)*) },
                #arguments,
            )
        }
    })
}

fn check(function: &ImplItemFn) -> Result<()> {
    let signature = &function.sig;
    let refuse = |tokens: &dyn ToTokens, message| Err(Error::new_spanned(tokens, message));
    if !signature.generics.params.is_empty() {
        let message = "a managed method cannot be generic: the server has to know which code to \
                       call. Make it private, or name the types";
        return refuse(&signature.generics, message);
    }
    if let Some(token) = &signature.asyncness {
        return refuse(token, "a managed method cannot be async: the caller waits for its value");
    }
    if let syn::Safety::Unsafe(token) = &signature.safety {
        return refuse(
            token,
            "a managed method cannot be unsafe: its callers do not know its \
                              conditions",
        );
    }
    Ok(())
}

fn receiver(function: &ImplItemFn, class: &Ident) -> Result<Receiver> {
    let Some(receiver) = function.sig.receiver() else {
        return constructor(&function.sig.output, class).ok_or_else(|| {
            let message = "a public function of a managed type has a `&self` or a `&mut self`, or \
                           is a constructor and returns `Self` or a `Result<Self, E>`. Make it \
                           `pub(crate)` to keep it out of the proxy";
            Error::new_spanned(&function.sig, message)
        });
    };
    match &receiver.kind {
        ReceiverKind::Reference(_, None, Some(_)) => Ok(Receiver::Exclusive),
        ReceiverKind::Reference(_, None, None) => Ok(Receiver::Shared),
        _ => Err(Error::new_spanned(
            receiver,
            "a managed method takes `&self` or `&mut self`: the object stays in the server",
        )),
    }
}

/// What makes an object returns `Self`, or a `Result` of it, or an alias of that.
fn constructor(output: &ReturnType, class: &Ident) -> Option<Receiver> {
    let is_class = |ty: &Type| *class == replace_self(ty.to_token_stream(), class).to_string();
    let ReturnType::Type(_, output) = output else { return None };
    if is_class(output) {
        return Some(Receiver::Constructor);
    }
    let Type::Path(path) = &**output else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    let made = arguments.args.first()?;
    let GenericArgument::Type(made) = made else { return None };
    if !is_class(made) || !last.ident.to_string().ends_with("Result") {
        return None;
    }
    let output = replace_self(output.to_token_stream(), class);
    let error = match arguments.args.get(1) {
        Some(error) => replace_self(error.to_token_stream(), class),
        None => quote!(<#output as ::multiproc::__private::MaybeMade>::Error),
    };
    Some(Receiver::FallibleConstructor(error))
}

fn refuse_references(ty: &Type, message: &str) -> Result<()> {
    // A reference anywhere in the type; `'static` ones cannot be decoded either.
    fn finds(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Punct(punct) => punct.as_char() == '&' || punct.as_char() == '\'',
            TokenTree::Group(group) => finds(group.stream()),
            _ => false,
        })
    }
    if let Type::ImplTrait(ty) = ty {
        let message = "a managed method cannot be generic: name the type";
        return Err(Error::new_spanned(ty, message));
    }
    if finds(ty.to_token_stream()) {
        return Err(Error::new_spanned(ty, message));
    }
    Ok(())
}

/// `Self` means another type in the proxy.
fn replace_self(tokens: TokenStream, class: &Ident) -> TokenStream {
    let replace = |token| match token {
        TokenTree::Ident(ident) if ident == "Self" => {
            let mut class = class.clone();
            class.set_span(ident.span());
            TokenTree::Ident(class)
        }
        TokenTree::Group(group) => {
            let mut new = Group::new(group.delimiter(), replace_self(group.stream(), class));
            new.set_span(group.span());
            TokenTree::Group(new)
        }
        other => other,
    };
    tokens.into_iter().map(replace).collect()
}

fn is_kept(attribute: &Attribute) -> bool {
    ["doc", "cfg", "deprecated"].iter().any(|name| attribute.path().is_ident(name))
}
