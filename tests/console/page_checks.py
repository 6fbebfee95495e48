"""What can be said of any page, by looking at it in the browser: contrasts as WCAG 2 computes
them, structure for who does not see it, and where Tab leads. Knows nothing of what the page tells.
"""

# Shared by the two below: colours as [r, g, b, a], and what lies behind an element.
COLOURS = """
const parse = (text) => {
  const n = text.match(/[\\d.]+/g).map(Number);
  return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1];
};
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]))
  .concat(1);
const behind = (element) => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255, 1]);
};
const luminance = (c) => {
  const [r, g, b] = c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 :
    ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
};
const place = (e) => e.localName + (e.id ? '#' + e.id : '') + ' "' + e.textContent.trim().slice(0, 30) + '"';
let worst = [21, 'nothing'];
const see = (front, element) => {
  const c = contrast(over(front, behind(element)), behind(element));
  if (c < worst[0]) worst = [c, place(element)];
};
"""


def contrast(browser):
    """The least contrast between a text that is shown and what is behind it, and where."""
    return browser.js(COLOURS + """
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !e.checkVisibility()) continue;
  const style = getComputedStyle(e);
  see(parse(e.namespaceURI.includes('svg') ? style.fill : style.color), e);
  ++seen;
}
for (const e of document.querySelectorAll('input')) {
  see(parse(getComputedStyle(e, '::placeholder').color), e);
}
return seen > 50 ? worst : [0, 'there are hardly any texts'];
""")


def contrast_of_lines(browser):
    """The same of the lines of charts and the borders of controls."""
    return browser.js(COLOURS + """
const lines = document.querySelectorAll('svg .line');
for (const e of lines) see(parse(getComputedStyle(e).stroke), e.closest('figure'));
for (const e of document.querySelectorAll('button, select, input')) {
  const border = parse(getComputedStyle(e).borderTopColor);
  const c = contrast(border, behind(e.parentElement));
  if (c < worst[0]) worst = [c, place(e)];
}
return lines.length ? worst : [0, 'there are no lines'];
""")


CONTROLS = {"button", "link", "textbox", "searchbox", "combobox", "checkbox", "DisclosureTriangle",
            "slider", "menuitem", "tab"}


def structure(browser):
    """Faults of structure, by what should be; what is empty is well."""
    found = browser.js("""
const all = (selector) => [...document.querySelectorAll(selector)];
const shown = (e) => e.checkVisibility();
const ids = all('[id]').map((e) => e.id);
const named = (e) => e.getAttribute('aria-label') || e.getAttribute('aria-labelledby');
return {
  levels: all('h1, h2, h3, h4, h5, h6').filter(shown).map((e) => Number(e.localName[1])),
  twice: ids.filter((id, i) => ids.indexOf(id) !== i),
  dangling: all('[aria-labelledby], [aria-describedby], label[for]').flatMap((e) =>
    ['aria-labelledby', 'aria-describedby', 'for'].flatMap((a) =>
      (e.getAttribute(a) || '').split(/\\s+/).filter((id) => id && !document.getElementById(id)))),
  images: all('img:not([alt])').map((e) => e.src)
    .concat(all('svg[role=img]').filter((e) => !named(e)).map((e) => e.id))
    .concat(all('svg:not([role=img])').filter((e) => !e.closest('[aria-hidden=true]'))
      .map((e) => e.id)),
  tables: all('table').filter((t) => t.tHead && [...t.tHead.querySelectorAll('th')]
    .some((th) => th.scope !== 'col')).map((t) => t.id),
  rows: all('tbody tr').filter((r) => !r.querySelector('th[scope=row]')).map((r) => r.innerText),
  landmarks: ['header', 'main', 'footer'].filter((name) => all('body > ' + name).length !== 1),
  sections: all('section').filter((e) => !named(e)).map((e) => e.id),
  language: document.documentElement.lang,
  live: all('[role=status], [aria-live]').length,
  positive: all('[tabindex]').filter((e) => e.tabIndex > 0).map((e) => e.id),
  inline: all('*').filter((e) => [...e.attributes].some((a) => a.name.startsWith('on')))
    .map((e) => e.localName),
};
""")
    levels = found["levels"]
    browser.cdp("Accessibility.enable")
    controls = []
    for node in browser.cdp("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role in CONTROLS:
            controls.append((role, node.get("name", {}).get("value", "")))
    browser.cdp("Accessibility.disable")
    return {
        "every control has a name": [role for role, name in controls if not name.strip()],
        "there are controls": [] if len(controls) >= 6 else controls,
        "there is one heading above all": [] if levels.count(1) == 1 else levels,
        "headings leave no level out": [
            (a, b) for a, b in zip([0] + levels, levels) if b > a + 1],
        "no id is there twice": found["twice"],
        "no reference dangles": found["dangling"],
        "every picture has a text": found["images"],
        "every column has a heading": found["tables"],
        "every row has a heading": found["rows"],
        "header, main and footer are there": found["landmarks"],
        "every section has a name": found["sections"],
        "the language is named": [] if found["language"] == "en" else [found["language"]],
        "one place tells news": [] if found["live"] == 1 else [found["live"]],
        "Tab follows the order of the page": found["positive"],
        "no script stands in the page": found["inline"],
    }


def walk(browser, most=80):
    """Where Tab leads from the top until it leaves the page: each control, whether its focus can
    be seen, and whether it is on the screen."""
    steps = []
    for _ in range(most):
        browser.tab()
        browser.settled()
        step = browser.js("""
const e = document.activeElement;
if (!e || e === document.body) return null;
const style = getComputedStyle(e);
const box = e.getBoundingClientRect();
return {
  name: e.localName + (e.id ? '#' + e.id : e.classList.contains('skip') ? '.skip' : ''),
  text: (e.innerText || '').slice(0, 40),
  outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
  visible: box.bottom > 0 && box.top < innerHeight && box.width > 0,
};""")
        if step is None or (steps and step == steps[0]):
            break
        steps.append(step)
    return steps
