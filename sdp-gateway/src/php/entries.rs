//! Finding the entries `<service>_url` in the syntax tree.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

use php_ast::visitor::{
    Visitor, walk_attribute, walk_class_member, walk_enum_member, walk_expr, walk_param, walk_stmt,
};
use php_ast::{
    ArrayElementKind, AssignOp, Attribute, ClassMember, ClassMemberKind, EnumMember, EnumMemberKind, Expr, ExprKind,
    FunctionCallExpr, NameKind, Param, Program, Span, Stmt, StmtKind,
};

use super::guards::{MAX_NESTING, line_of, lines_between};
use super::literal::string_value;
use super::{PhpError, Unreplaceable, wrapper};

/// Deepest tree that is walked. Chains such as `$a[0][0]…` nest without brackets that enclose one another.
const MAX_TREE_DEPTH: usize = 4 * MAX_NESTING;

/// When PHP evaluates what stands somewhere in the file. Later ones are known less well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Whenever the file is run that far, in the file's order.
    Always,
    /// Perhaps, but never before what stands earlier in the file.
    Perhaps,
    /// When a function is called, which can be before anything else.
    Called,
    /// Where PHP allows constant expressions only.
    Constant,
}

/// One place that sets `<service>_url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) service: String,
    /// The key is a constant's name in upper case.
    pub(super) upper: bool,
    /// From 1; filled in when all are found.
    pub(super) line: usize,
    /// The value, without the wrapper that chooses it per request.
    pub(super) span: Range<usize>,
    /// The wrapper with the value in it, if there is one.
    pub(super) wrapper: Option<Range<usize>>,
    pub(super) place: Place,
    pub(super) value: Option<Vec<u8>>,
    pub(super) refusal: Option<Unreplaceable>,
}

/// All places, in the file's order. `bytes` are the original bytes the tree's offsets count in.
pub(super) fn find(bytes: &[u8], program: &Program<'_, '_>) -> Result<Vec<Found>, PhpError> {
    let mut finder = Finder { bytes, depth: 0, place: Place::Always, jumps: false, found: Vec::new() };
    if let ControlFlow::Break(offset) = finder.visit_program(program) {
        return Err(PhpError::TooDeep { line: line_of(bytes, offset), limit: MAX_NESTING });
    }
    let mut found = finder.found;
    if finder.jumps {
        // Nothing is certain to come before what follows it.
        found.iter_mut().for_each(|entry| entry.place = entry.place.max(Place::Called));
    }
    found.sort_by_key(|entry| (entry.span.start, entry.span.end));
    let exact: BTreeSet<String> =
        found.iter().filter(|entry| !entry.upper).map(|entry| entry.service.clone()).collect();
    found.retain(|entry| !entry.upper || !exact.contains(&entry.service));
    let (mut line, mut counted_to) = (1, 0);
    for entry in &mut found {
        line += lines_between(bytes, counted_to, entry.span.start);
        counted_to = entry.span.start;
        entry.line = line;
    }
    refuse_entangled(&mut found);
    Ok(found)
}

/// Replacing a value that contains another entry would take that one away; replacing the inner would change both.
fn refuse_entangled(found: &mut [Found]) {
    // Sorted by start, so an enclosing value comes before what it encloses. Wrappers hold no entry but their own.
    let mut outer: Option<usize> = None;
    for at in 0..found.len() {
        match outer {
            Some(enclosing) if found[at].span.start < found[enclosing].span.end => {
                found[at].refusal = Some(Unreplaceable::Entangled);
                found[enclosing].refusal = Some(Unreplaceable::Entangled);
            }
            _ => outer = Some(at),
        }
    }
}

struct Finder<'a> {
    bytes: &'a [u8],
    depth: usize,
    place: Place,
    /// The file has a `goto`.
    jumps: bool,
    found: Vec<Found>,
}

impl Finder<'_> {
    fn descend(&mut self, span: Span, walk: impl FnOnce(&mut Self) -> ControlFlow<usize>) -> ControlFlow<usize> {
        if self.depth >= MAX_TREE_DEPTH {
            return ControlFlow::Break(span.start as usize);
        }
        self.depth += 1;
        let flow = walk(self);
        self.depth -= 1;
        flow
    }

    fn add(&mut self, (service, upper): (String, bool), value: &Expr<'_, '_>, refusal: Option<Unreplaceable>) {
        if is_array(value) {
            return;
        }
        let range = |expr: &Expr<'_, '_>| expr.span.start as usize..expr.span.end as usize;
        let inner = wrapper::inner(self.bytes, &service, value);
        let wrapper = inner.map(|_| range(value));
        let value = inner.unwrap_or(value);
        self.found.push(Found {
            service,
            upper,
            line: 0,
            span: range(value),
            wrapper,
            place: self.place,
            value: string_value(value),
            refusal,
        });
    }

    fn within(&mut self, place: Place, walk: impl FnOnce(&mut Self) -> ControlFlow<usize>) -> ControlFlow<usize> {
        let outside = std::mem::replace(&mut self.place, place);
        let flow = walk(self);
        self.place = outside;
        flow
    }

    /// The service of a literal key with the exact spelling.
    fn exact(&self, key: &Expr<'_, '_>) -> Option<(String, bool)> {
        let name = self.literal(key)?;
        service_of(name.strip_suffix("_url")?).map(|service| (service, false))
    }

    /// The service of a constant's name, exact or in upper case.
    fn constant(&self, name: &str) -> Option<(String, bool)> {
        if let Some(service) = name.strip_suffix("_url") {
            return service_of(service).map(|service| (service, false));
        }
        let service = name.strip_suffix("_URL")?;
        let upper = !service.bytes().any(|byte| byte.is_ascii_lowercase());
        service_of(service).filter(|_| upper).map(|service| (service.to_ascii_lowercase(), true))
    }

    /// A literal's text; none when its source has bytes that the parser saw as placeholders.
    fn literal(&self, expr: &Expr<'_, '_>) -> Option<String> {
        let raw = self.bytes.get(expr.span.start as usize..expr.span.end as usize)?;
        let value = string_value(expr).filter(|_| raw.is_ascii())?;
        String::from_utf8(value).ok()
    }

    fn define(&mut self, call: &FunctionCallExpr<'_, '_>) {
        let ExprKind::Name(name) = &call.name.kind else { return };
        let [function] = name.parts_slice() else { return };
        let global = matches!(name.kind(), NameKind::Unqualified | NameKind::FullyQualified);
        if !global || !function.eq_ignore_ascii_case("define") {
            return;
        }
        let plain = |at: usize| {
            call.args.get(at).filter(|arg| arg.name.is_none() && !arg.is_spread()).and_then(|arg| arg.value())
        };
        let (Some(key), Some(value)) = (plain(0), plain(1)) else { return };
        if let Some(key) = self.literal(key).and_then(|name| self.constant(&name)) {
            self.add(key, value, None);
        }
    }

    fn assignment(&mut self, target: &Expr<'_, '_>, op: AssignOp, by_ref: bool, value: &Expr<'_, '_>) {
        let ExprKind::ArrayAccess(access) = &target.kind else { return };
        let Some(key) = access.index.and_then(|index| self.exact(index)) else { return };
        let refusal = match op {
            _ if by_ref => Some(Unreplaceable::Reference),
            AssignOp::Assign => None,
            _ => Some(Unreplaceable::CompoundAssignment),
        };
        self.add(key, value, refusal);
    }
}

impl<'arena, 'src> Visitor<'arena, 'src> for Finder<'_> {
    /// Offset at which the tree got too deep.
    type Break = usize;

    fn visit_stmt(&mut self, stmt: &Stmt<'arena, 'src>) -> ControlFlow<usize> {
        match &stmt.kind {
            StmtKind::Const(items) => {
                return self.descend(stmt.span, |finder| {
                    finder.within(Place::Constant, |finder| {
                        for item in items.iter() {
                            if let Some(key) = item.name.as_str().and_then(|name| finder.constant(name)) {
                                finder.add(key, &item.value, None);
                            }
                        }
                        walk_stmt(finder, stmt)
                    })
                });
            }
            StmtKind::Goto(_) => self.jumps = true,
            // `foreach (… as ['x_url' => $x])` takes apart, it sets nothing.
            StmtKind::Foreach(each) if is_array(&each.value) => {
                return self.descend(stmt.span, |finder| {
                    finder.within(finder.place.max(Place::Perhaps), |finder| {
                        finder.visit_expr(&each.expr)?;
                        finder.visit_stmt(each.body)
                    })
                });
            }
            _ => {}
        }
        let place = match &stmt.kind {
            StmtKind::Expression(_) | StmtKind::Return(_) | StmtKind::Block(_) | StmtKind::Namespace(_) => self.place,
            StmtKind::StaticVar(_) => Place::Constant,
            StmtKind::Function(_)
            | StmtKind::Class(_)
            | StmtKind::Interface(_)
            | StmtKind::Trait(_)
            | StmtKind::Enum(_) => Place::Called,
            _ => self.place.max(Place::Perhaps),
        };
        self.descend(stmt.span, |finder| finder.within(place, |finder| walk_stmt(finder, stmt)))
    }

    fn visit_expr(&mut self, expr: &Expr<'arena, 'src>) -> ControlFlow<usize> {
        let mut expr = expr;
        // `a . b . c …` nests to the left, as deep as the chain is long.
        if matches!(expr.kind, ExprKind::Binary(_)) {
            return self.within(self.place.max(Place::Perhaps), |finder| {
                while let ExprKind::Binary(binary) = &expr.kind {
                    finder.visit_expr(binary.right)?;
                    expr = binary.left;
                }
                finder.visit_expr(expr)
            });
        }
        match &expr.kind {
            ExprKind::Array(elements) => {
                for element in elements.iter() {
                    let refusal = match &element.kind {
                        ArrayElementKind::Value(_) => None,
                        _ => Some(Unreplaceable::Reference),
                    };
                    if let Some(key) = element.key.as_ref().and_then(|key| self.exact(key)) {
                        self.add(key, element.value(), refusal);
                    }
                }
            }
            ExprKind::Assign(assign) => {
                self.assignment(assign.target, assign.op, assign.by_ref, assign.value);
                if is_array(assign.target) {
                    return self.descend(expr.span, |finder| finder.visit_expr(assign.value));
                }
            }
            ExprKind::FunctionCall(call) => self.define(call),
            _ => {}
        }
        let place = match &expr.kind {
            ExprKind::Array(_) | ExprKind::FunctionCall(_) | ExprKind::Parenthesized(_) => self.place,
            ExprKind::Assign(assign) if matches!(assign.op, AssignOp::Assign) => self.place,
            ExprKind::Closure(_) | ExprKind::ArrowFunction(_) | ExprKind::AnonymousClass(_) => Place::Called,
            _ => self.place.max(Place::Perhaps),
        };
        self.descend(expr.span, |finder| finder.within(place, |finder| walk_expr(finder, expr)))
    }

    fn visit_param(&mut self, param: &Param<'arena, 'src>) -> ControlFlow<usize> {
        self.within(Place::Constant, |finder| walk_param(finder, param))
    }

    fn visit_attribute(&mut self, attribute: &Attribute<'arena, 'src>) -> ControlFlow<usize> {
        self.within(Place::Constant, |finder| walk_attribute(finder, attribute))
    }

    fn visit_class_member(&mut self, member: &ClassMember<'arena, 'src>) -> ControlFlow<usize> {
        let method = matches!(member.kind, ClassMemberKind::Method(_));
        self.within(if method { Place::Called } else { Place::Constant }, |finder| walk_class_member(finder, member))
    }

    fn visit_enum_member(&mut self, member: &EnumMember<'arena, 'src>) -> ControlFlow<usize> {
        let method = matches!(member.kind, EnumMemberKind::Method(_));
        self.within(if method { Place::Called } else { Place::Constant }, |finder| walk_enum_member(finder, member))
    }
}

fn is_array(expr: &Expr<'_, '_>) -> bool {
    match &expr.kind {
        ExprKind::Array(_) => true,
        ExprKind::Parenthesized(inner) => is_array(inner),
        _ => false,
    }
}

/// A service's name as it can stand in a key; anything else is some other key that happens to end alike.
fn service_of(name: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.bytes().all(plain)).then(|| name.to_owned())
}
