import { type KeyboardEvent, type ReactNode, useEffect, useId, useRef, useState } from "react";

interface ComboboxProps<T> {
  id?: string;
  value: string;
  onChange: (value: string) => void;
  options: readonly T[];
  /** What an option is called, which is what is typed to get it. */
  name: (option: T) => string;
  children?: (option: T) => ReactNode;
  placeholder?: string;
  isLoading?: boolean;
  /** Said instead of options when there are none. */
  empty?: string;
  required?: boolean;
  disabled?: boolean;
  "aria-describedby"?: string | undefined;
  "aria-invalid"?: true | undefined;
}

/** A text with suggestions. What is typed counts, whether it was suggested or not. */
export function Combobox<T>(props: ComboboxProps<T>) {
  const { value, onChange, options, name, children = name, isLoading = false, empty = "Nothing matches" } = props;
  const list = useId();
  const [isOpen, setOpen] = useState(false);
  const [active, setActive] = useState(-1);
  const root = useRef<HTMLDivElement>(null);
  const at = Math.min(active, options.length - 1);

  useEffect(() => {
    root.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [at]);

  const choose = (option: T) => {
    onChange(name(option));
    setOpen(false);
    setActive(-1);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      setOpen(true);
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (options.length > 0) setActive((at + step + options.length) % options.length);
    } else if (event.key === "Enter" && isOpen && options[at] !== undefined) {
      event.preventDefault();
      choose(options[at]);
    } else if (event.key === "Escape" && isOpen) {
      event.preventDefault();
      event.stopPropagation();
      setOpen(false);
    }
  };
  return (
    // It only sees the focus leave what is within.
     
    <div
      className="combobox"
      ref={root}
      onBlur={(event) => {
        if (!root.current?.contains(event.relatedTarget)) setOpen(false);
      }}
    >
      <input
        id={props.id}
        className="input"
        role="combobox"
        aria-expanded={isOpen}
        aria-controls={list}
        aria-autocomplete="list"
        aria-activedescendant={isOpen && at >= 0 ? `${list}-${at}` : undefined}
        aria-describedby={props["aria-describedby"]}
        aria-invalid={props["aria-invalid"]}
        autoComplete="off"
        autoCapitalize="off"
        spellCheck={false}
        placeholder={props.placeholder}
        required={props.required}
        disabled={props.disabled}
        value={value}
        onChange={(event) => {
          onChange(event.target.value);
          setOpen(true);
          setActive(-1);
        }}
        onFocus={() => setOpen(true)}
        onClick={() => setOpen(true)}
        onKeyDown={onKeyDown}
      />
      {isLoading ? <span className="spinner combobox-spinner" aria-hidden /> : null}
      <ul className="listbox" role="listbox" id={list} aria-label="Suggestions" hidden={!isOpen}>
        {options.map((option, index) => (
          // The keys are the input's, as this pattern has it.
          // eslint-disable-next-line jsx-a11y/click-events-have-key-events
          <li
            key={name(option)}
            id={`${list}-${index}`}
            role="option"
            tabIndex={-1}
            aria-selected={index === at}
            onMouseDown={(event) => event.preventDefault()}
            onMouseMove={() => setActive(index)}
            onClick={() => choose(option)}
          >
            {children(option)}
          </li>
        ))}
        {options.length === 0 ? (
          <li role="option" aria-disabled aria-selected={false} className="muted">
            {isLoading ? "Looking…" : empty}
          </li>
        ) : null}
      </ul>
    </div>
  );
}
