<?php
// Made by SDP, which replaces it: what is edited here is lost.
// Chooses the routes of this request from routes.php by the key that it carries, once per request, when the gateway's
// configuration first asks. Works in PHP 7.0 and newer, prints nothing and never throws: without routes every service
// keeps the gateway's own value.
return (static function () {
    // The keys are data: looked up as they are, never written anywhere.
    $carried = static function () {
        $text = static function ($value) {
            return \is_string($value) ? \trim($value, " \t") : '';
        };
        $key = $text(isset($_SERVER['HTTP_X_SDP_SANDBOX']) ? $_SERVER['HTTP_X_SDP_SANDBOX'] : '');
        if ($key !== '') {
            return [$key, 'header'];
        }
        $key = $text(isset($_COOKIE['sdp-sandbox']) ? $_COOKIE['sdp-sandbox'] : '');
        if ($key !== '') {
            return [$key, 'cookie'];
        }
        $baggage = $text(isset($_SERVER['HTTP_BAGGAGE']) ? $_SERVER['HTTP_BAGGAGE'] : '');
        if ($baggage !== '') {
            foreach (\explode(',', \substr($baggage, 0, 8192)) as $member) {
                $parts = \explode('=', \explode(';', $member, 2)[0], 2);
                if (isset($parts[1]) && \trim($parts[0], " \t") === 'sdp-sandbox') {
                    $key = \rawurldecode(\trim($parts[1], " \t"));
                    return $key !== '' ? [$key, 'baggage'] : ['', ''];
                }
            }
        }
        return ['', ''];
    };

    $table = null;
    \ob_start();
    try {
        $file = __DIR__ . '/routes.php';
        $table = @\is_file($file) ? include $file : null;
    } catch (\Throwable $error) {
        $table = null;
    }
    \ob_end_clean();
    $sound = \is_array($table) && isset($table['version'], $table['line'], $table['every'], $table['sandboxes'])
        && \is_string($table['line']) && \is_array($table['every']) && \is_array($table['sandboxes']);

    $routes = $headers = [];
    if ($sound) {
        list($key, $carrier) = $carried();
        $routes = $table['every'];
        $line = $table['line'];
        if (\strlen($key) <= 80 && isset($table['sandboxes'][$key])) {
            $sandbox = $table['sandboxes'][$key];
            $routes = $sandbox['services'] + $routes;
            $line = 'for="' . $sandbox['name'] . '";from=' . $carrier . ', ' . $sandbox['line'];
            $headers = ['X-SDP-Sandbox: ' . $key, 'baggage: sdp-sandbox=' . $key];
        } elseif ($key !== '') {
            $line = 'for=?0;from=' . $carrier . ', ' . $line;
        }
        try {
            if (!\headers_sent()) {
                \header('X-SDP-Route: ' . $line);
            }
            if ($headers) {
                // For file_get_contents and all else that is given no context of its own.
                $context = \stream_context_get_options(\stream_context_get_default());
                $given = isset($context['http']['header']) ? $context['http']['header'] : [];
                $given = \is_array($given) ? $given : \explode("\r\n", \trim($given));
                \stream_context_set_default(['http' => ['header' => \array_merge(\array_filter($given), $headers)]]);
            }
        } catch (\Throwable $error) {
            // The routes hold without it.
        }
    }
    \defined('SDP_HEADERS') || \define('SDP_HEADERS', $headers);
    \defined('SDP_ROUTES') || \define('SDP_ROUTES', $routes);
    return $routes;
})();
