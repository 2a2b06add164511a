// Makes elements. Texts become text nodes and never markup, whatever a file says.

/** h("a", {href: "#", class: "x", onclick: f}, "text", element, ...) makes an element. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** The same for SVG. */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  append(element, children);
  return element;
}

/** A box that scrolls sideways, by keyboard too, if its content is wider than the page. */
function scrolling(id, label, ...children) {
  return h("div", { class: "scroll", id, tabindex: 0, role: "region", "aria-label": label }, ...children);
}

/** A choice of one of several: radio buttons that look like one control. */
function choice(id, legend, options, chosen, onchange) {
  return h("fieldset", { class: "choice" },
    h("legend", {}, legend),
    h("span", { class: "options" }, options.map(([value, name, disabled]) => h("label", {},
      h("input", {
        type: "radio", name: id, value, id: `${id}-${value}`, checked: value === chosen, disabled,
        onchange: () => onchange(value),
      }),
      h("span", {}, name)))));
}

/** A command with a button that copies it. */
function command(text) {
  if (!text) return null;
  const button = h("button", { type: "button", class: "quiet copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  const code = h("code", { tabindex: 0 }, text);
  return h("div", { class: "command" }, code, button);
}
